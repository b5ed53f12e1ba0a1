// Package cpushare bounds the CPU time that something uses, however much happens, and what
// it uses for each user.
//
// Out of scope: measuring. This package imports none of ours.
package cpushare
