// Package upgrade puts another binary in the place of a guest agent's own, by order of its host, and the old one back
// unless the new one links.
//
// The order has been proved before this package is asked. What comes behind it is not trusted beyond that: it is taken
// if it has the size and the SHA-256 that were ordered, is an executable for this machine, and says that it is a guest agent of the version
// that was ordered. A binary that belongs to
// a package is never replaced, and one that is newer only where the order says so.
//
// Everything that changes a file outside of the state directory is a shell script. Under systemd the agent's service may not
// write where its binary is, so that the script runs in a unit of its own; and the script that puts the old binary back
// depends neither on the new one nor on this process. It is started before anything is replaced, waits, and does nothing where
// the state directory has no [pending] file of its upgrade any more, which a new agent removes that has been linked to. A machine that
// is started anew meanwhile loses that script, and the new agent starts another one before it does anything else.
//
// Out of scope: links, how the order is proved, what is told to whom.
package upgrade
