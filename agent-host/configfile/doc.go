// Package configfile follows a rum.toml that changes: a [File] has the last good version of it,
// in this run or from an earlier one, and says why the file is not what is in use.
//
// Out of scope: what a file means (package config), and which files there are (package
// projects, and the command).
package configfile
