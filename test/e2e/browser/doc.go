// Package browser looks at the agent's page as its user does, with Chromium. Its guests are in the test itself,
// each at an address of 127/8 that it has in the place of a machine. The tests run with the tag e2e.
package browser
