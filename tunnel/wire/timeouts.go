package wire

import "time"

// DialTimeout bounds the dial of a service, for whose outcome the peer waits. One answers at once unless its backlog
// is full or a firewall drops the packets; then it is as long as the kernel tries
// (127 s with 6 retries, net.ipv4.tcp_syn_retries), and as the client waits.
const DialTimeout = 130 * time.Second
