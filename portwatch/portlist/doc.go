// Package portlist is what listens on a machine, as a list: what is told of each listener, the
// order, and the difference between two lists.
//
// It finds nothing out; package portwatch does. This package imports none of ours.
package portlist
