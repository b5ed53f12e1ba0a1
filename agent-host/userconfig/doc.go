// Package userconfig is the configuration of the user who runs the agent: which rum.toml counts, which VM follows the one of
// which project, and what the log and status say of both.
//
// Out of scope: what a file means (package config), that files change (packages configfile and projects), and what VMs do
// with their rules (package hostagent).
package userconfig
