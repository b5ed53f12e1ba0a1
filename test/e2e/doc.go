// Package e2e holds the tests that drive real virtual machines: both agents as
// they are built, a guest from package vm, and a host that sees nothing of the
// guest but what the host agent forwards. They need the build tag e2e.
//
// Tests with libvirt are in a package of their own beside this one.
package e2e
