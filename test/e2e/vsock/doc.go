// Package e2e runs rum agents over real AF_VSOCK: a Debian VM plays the host, with its own vhost_vsock and libvirtd, and
// a nested guest in it is the VM that is served.
//
//	go test -tags e2evsock ./test/e2e/vsock/
//
// The machine that runs the tests opens no vsock socket and needs no vhost_vsock; all of it is inside the Debian VM. Where
// that VM is emulated, its processor has AMD's virtualization, emulated too, so that the nested guest need not be emulated
// a second time.
package e2e
