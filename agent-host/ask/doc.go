// Package ask is what commands ask of an agent that runs, and how they show it: with the
// errors and exit codes that all of them have in common.
//
// What the agent answers is the business of control and of what that is given; how values are
// written for people is that of output. Flags are the commands' own.
package ask
