// Package control is the local door to a running host agent: what it reports,
// an HTTP API for it on a unix socket that only its owner can open, and the
// client of that API.
//
// What the values mean and where they come from is the business of the
// packages that fill them in; how they are printed is the command's.
package control
