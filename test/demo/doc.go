// Command demo shows a port that opens in a real VM answering on localhost.
//
// It boots a guest made by package vm with rum-guest-agent in it, runs
// bin/rum-host-agent beside it, and prints the forward that appears when a web
// server starts in the guest, the page fetched through it, and the status
// table. It stays until Ctrl-C; with DEMO_ONCE=1 it exits 0 after the page
// came and 1 if it does not.
//
// make demo runs it; installing packages and building are the Makefile's part.
package main
