// Package complete knows what may come next on a command line: names of VMs, ports and states of the agent that runs.
//
// A shell asks at each press of a key, so that an agent has little time to answer, and what does not come in time is
// nothing. Nothing is ever said but words.
//
// Out of scope: which word of which command is what, and how shells are told.
package complete
