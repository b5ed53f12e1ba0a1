// Package host is what there is at the addresses of this host: our own listeners, which it
// opens, closes and recognizes, and tenants, which are other programs that have an address
// or had it a moment ago.
//
// It never knows which forward wants an address, or who comes first; that is the package
// forward's.
package host
