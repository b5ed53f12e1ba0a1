// Package room shares what the host has room for: the descriptors of host listeners among
// all VMs, and in a VM the number of its forwards among users, programs and rules. Everybody
// has what it needs as long as that is little, and the big ones share the rest.
//
// A [Room] keeps the accounts: who has how much, who waits and who is next. What there is no
// room for, and what a rule keeps in the guest, is a [Row], which takes little memory, for a
// guest may announce thousands of ports. The package opens and closes nothing: it tells those
// that it knows as [Forward], [Binding] and [Owner]. It has no lock of its own.
//
// It never knows which host addresses are wanted, or who of several has one.
package room
