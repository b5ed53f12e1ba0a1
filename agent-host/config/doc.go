// Package config reads rum.toml and says what it means: which set-up a VM's
// network should have, and which listener of which VM goes where on the host.
//
// [Parse] is strict: what it does not understand, or what contradicts itself,
// is an [Error] with file, line, column and key, and nothing of the file
// counts. The result is [Rules], of which [Rules.Decide] is the only evaluator
// there is; both are pure functions.
//
// Out of scope: files that change (package configfile), opening listeners, and finding
// VMs. This package opens no file.
package config
