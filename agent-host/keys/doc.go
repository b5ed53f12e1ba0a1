// Package keys keeps the keys of this host's guests: one private file per guest in the user's state directory, bound
// to the guest's name and, once known, its domain's UUID.
//
// Making a key reach the guest is cloudinit's work, proving it tunnel's.
package keys
