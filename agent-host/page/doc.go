// Package page is what a browser on this host sees of an agent: a page of its VMs and forwards, and names
// under which ports of VMs are found, such as http://3000.dev.localhost:7070.
//
// One HTTP server on loopback is both, told apart by the Host of each request, which has to be one of its
// names: a page of another site that has its own name point here gets nothing. What the page shows and does
// is the API of package control, for those alone who have a session. There is no cookie, since
// cookies know no ports: a command prints a link with a token, which holds once, and the page
// exchanges that for a session.
//
// What forwards are, and how a connection gets into a VM, is told to it.
package page
