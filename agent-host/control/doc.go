// Package control is the local door to a running host agent: an HTTP API for its
// status on a unix socket that only its owner can open, and the client of that API.
//
// What there is to tell is the business of package status; how it is printed is the
// command's. It knows neither of links nor of forwards.
package control
