// Package output writes what people read on a terminal.
//
// The rules: standard output carries what was asked for and nothing else; logs and
// errors go to standard error. An error is two lines: what is wrong, beginning with the
// program's name, and what to do about it, which a [Problem] knows.
//
// Text that a guest could have chosen goes through [Clean] before it is printed
// for people; JSON needs no such care, because it escapes. Colour is for
// terminals, and never the only carrier of a meaning.
//
// It knows no command and asks no agent: what it writes it is given.
package output
