// Package epollwait is how a loop waits for its epoll descriptor: which of the ways there
// are costs least where events come as they do at the moment. It knows nothing of what the
// events are about.
//
//	it is    while                                       an event costs     and else
//	awake    one comes at any moment: within awakeNear   nothing            a processor, for awakeFor
//	asleep   one follows the other: within briskWait     a wake-up          a timer every briskWait, once
//	parked   nothing comes                               that, and some us  nothing
//
// A thread that is asleep in a system call wakes the Go runtime's monitor with each
// (entersyscall in runtime/proc.go), which looks around for some milliseconds, in steps of 20 us
// at first, until it has taken the thread's place in the scheduler. For the ten messages a
// second of somebody who types that is 500 context switches. A goroutine that is parked in
// Go's own poller has no thread and no place.
package epollwait
