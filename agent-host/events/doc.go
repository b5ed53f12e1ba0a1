// Package events remembers what happened to VMs and their forwards, and tells whoever
// follows it.
//
// A [History] keeps the last few hundred events of each VM, each with a number that grows,
// the cursor. Publishing waits for nobody: a follower reads from the history at its own pace,
// and is told how many events it missed. What a VM may cause has a budget, and what is beyond
// it is counted.
//
// When something has happened is decided by the packages that publish it, forward and
// hostagent; how it reaches a client is the business of control. This package imports none
// of ours.
package events
