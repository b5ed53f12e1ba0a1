// Package heartbeat is what the host knows by asking a guest for signs of life: whether it owes one, for how long it has
// been silent, and how far its clock is from this one.
//
// When a guest is asked, and what follows from silence, is the link's to say.
package heartbeat
