// Package datagrams carries UDP between clients on the host and a guest. A client is a flow
// for as long as datagrams come and go: as long as its socket, if that is on this host. Each
// datagram takes the best way there is at the moment, and answers leave from the address
// that the client sent to.
//
// What a flow may cost is bounded here: how many there are, what is answered to who may not
// be who it says it is. It never knows which host addresses there are, or why.
package datagrams
