// Package intake is between what a guest announces and what is decided about it: listeners
// whose process a rule asks for wait for its name, and what changes waits until it is paid
// for. What only comes waits for nobody.
package intake
