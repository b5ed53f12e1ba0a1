// Package setups remembers on which libvirt domains setup was run, and with what, in a private file of the user's state
// directory: another program may define a domain anew, and what setup added is gone then.
//
// Out of scope: noticing that, and putting things back.
package setups
