// Package control is the local door to a running host agent: an HTTP API for its
// status and what happens, on a unix socket that only its owner can open, and the client of
// that API.
//
// What there is to tell is the business of packages status and events; how it is printed is the
// command's. It knows neither of links nor of forwards.
package control
