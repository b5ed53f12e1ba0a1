// Package setup gives a libvirt domain what the agents need, takes it back, and remembers it.
//
// [NewPlan] says what a domain lacks of a vsock device or an agent channel, of a second NIC on a host-only network and of
// a disk with a seed image; [NewUndo] says what setup added; [Apply] carries either out. A [Store] remembers in a private
// file of the user's state directory on which domains setup was run, and with what: another program may define a domain
// anew, and what setup added is gone then; [Store.PutBack] brings it back.
//
// A domain's definition is edited as text: the new devices are inserted between two existing elements and every other
// byte stays, because a round trip through Go structures would drop comments, foreign namespaces and elements that a
// newer libvirt knows. What setup added carries aliases that begin with "ua-rum-", and nothing else is ever
// removed.
//
// Out of scope: which domains there are (package libvirt), and noticing that one was defined anew. This is the only
// package that imports libvirtxml. It knows neither of links nor of forwards.
package setup
