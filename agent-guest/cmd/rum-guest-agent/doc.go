// Command rum-guest-agent runs in a VM, tells the host which ports listen
// there and connects the host to them.
//
// This package is the command line only: flags, files and exit codes. What is
// served is in package guestagent, what is seen in package portwatch.
package main
