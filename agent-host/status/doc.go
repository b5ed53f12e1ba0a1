// Package status is what a host agent tells of itself: the values that 'rum-host-agent status --json' prints, and the
// words for the states of VMs and forwards. Fields may be added to the JSON; those that are there stay.
//
// What the values are is the business of the packages that fill them in, hostagent and forward; how they reach a client is
// that of control; how they are printed is the command's. This package imports none of ours.
package status
