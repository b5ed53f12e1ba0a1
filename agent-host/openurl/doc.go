// Package openurl decides about the pages that programs in VMs ask this host to open, as those do with which somebody
// logs in: which URLs are taken, whether the user is asked first, and which port of the VM is brought out for a while, so
// that the answer of such a page arrives.
//
// A guest is not trusted. What it gives for a URL is parsed and written anew, and everything about it has a bound. What
// a VM may do, which ports it has, and how a browser is opened, is told to this package.
package openurl
