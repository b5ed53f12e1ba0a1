package main

import (
	"slices"
)

// metric names a number that a measurement finds.
type metric string

const (
	forward1   metric = "forward_1_stream_gbps" // towards the guest
	reverse1   metric = "reverse_1_stream_gbps"
	forward4   metric = "forward_4_streams_gbps"
	reverse4   metric = "reverse_4_streams_gbps"
	rttP50     metric = "round_trip_p50_us"
	rttOneCPU  metric = "round_trip_p50_us_one_cpu" // both ends on the same
	rttTwoCPUs metric = "round_trip_p50_us_two_cpus"
	rttP99     metric = "round_trip_p99_us"
	connRate1  metric = "connections_per_second"
	connRate8  metric = "connections_per_second_8_workers"
	stall      metric = "stalled_reader_rtt_factor"
	cpuForward metric = "forward_cpu_seconds_per_gb" // of the relay's processes; 1 GB is 10^9 bytes
	cpuReverse metric = "reverse_cpu_seconds_per_gb"
	idleKiB    metric = "idle_connection_kib" // of the relay's processes
	idleCount  metric = "idle_connections"

	requests       metric = "requests_per_second" // of a web server, through its forward
	requestsByName metric = "requests_per_second_by_name"
	byNameRatio    metric = "requests_by_name_over_forward"

	udpP50          metric = "udp_round_trip_p50_us"
	udpP99          metric = "udp_round_trip_p99_us"
	besideP50       metric = "round_trip_p50_us_in_turns_with_udp" // of TCP
	udpOverTCP      metric = "udp_round_trip_p50_over_tcp"
	floodArrived    metric = "datagrams_arrived_of_100000_per_second"
	queriesAnswered metric = "questions_answered_of_10000_per_second"
	http3Rate       metric = "http3_gbps"

	besideForward metric = "rtt_factor_beside_forward_bulk"
	besideReverse metric = "rtt_factor_beside_reverse_bulk"
	besideFlood   metric = "rtt_factor_beside_small_messages"

	// What the kernel counts, for each MB (10^6 bytes) of bulk and for each round trip; shares are of the bytes.
	packetsForward metric = "forward_packets_per_mb"
	fullForward    metric = "forward_share_in_packets_from_60_kib"
	midForward     metric = "forward_share_in_packets_from_16_kib"
	lowForward     metric = "forward_share_in_smaller_packets"
	creditsForward metric = "forward_credit_updates_per_mb"
	callsForward   metric = "forward_system_calls_per_mb"
	wakesForward   metric = "forward_wakeups_per_mb"
	packetsReverse metric = "reverse_packets_per_mb"
	fullReverse    metric = "reverse_share_in_packets_from_60_kib"
	midReverse     metric = "reverse_share_in_packets_from_16_kib"
	lowReverse     metric = "reverse_share_in_smaller_packets"
	creditsReverse metric = "reverse_credit_updates_per_mb"
	callsReverse   metric = "reverse_system_calls_per_mb"
	wakesReverse   metric = "reverse_wakeups_per_mb"
	packetsTrip    metric = "packets_per_round_trip"
	creditsTrip    metric = "credit_updates_per_round_trip"
	callsTrip      metric = "system_calls_per_round_trip"
	wakesTrip      metric = "wakeups_per_round_trip"

	slowSwitches metric = "context_switches_per_second_at_ten_round_trips" // of one process
)

// results is everything one run found.
type results struct {
	Machine  machine                                `json:"machine"`
	Seconds  int                                    `json:"seconds_per_transfer"`
	Rounds   int                                    `json:"rounds"`
	Relays   []string                               `json:"relays"`
	Samples  map[string]map[metric][]comparedSample `json:"samples"`
	Failures []failure                              `json:"failures,omitempty"`
	titles   map[string]string
	tables   []table
	goals    []goal
}

// comparedSample is a relay's number beside the one loopback had just before.
type comparedSample struct {
	Value    float64 `json:"value"`
	Loopback float64 `json:"loopback,omitzero"` // zero: not measured of loopback
}

// failure is a measurement that found nothing.
type failure struct {
	Relay string `json:"relay"`
	Error string `json:"error"`
}

func newResults(o options) *results {
	r := &results{
		Machine: describeMachine(), Seconds: o.seconds, Rounds: o.rounds,
		Samples: make(map[string]map[metric][]comparedSample), titles: make(map[string]string),
		tables: tables, goals: goals,
	}
	switch {
	case o.cid != 0:
		r.tables, r.goals = vsockTables, vsockGoals
	case o.udp:
		r.tables, r.goals = []table{udpTable}, udpGoals
	}
	for _, relay := range selectRelays(o) {
		r.Relays = append(r.Relays, relay.name)
		r.Samples[relay.name] = make(map[metric][]comparedSample)
		r.titles[relay.name] = relay.title
	}
	return r
}

func (r *results) add(relay string, s, base sample) {
	for m, value := range s {
		r.Samples[relay][m] = append(r.Samples[relay][m], comparedSample{Value: value, Loopback: base[m]})
	}
}

func (r *results) fail(relay string, err error) {
	r.Failures = append(r.Failures, failure{Relay: relay, Error: err.Error()})
}

// value is the median over the rounds; false: there is none.
func (r *results) value(relay string, m metric) (float64, bool) {
	var values []float64
	for _, s := range r.Samples[relay][m] {
		values = append(values, s.Value)
	}
	return median(values)
}

// ratio is the median over the rounds of the relay's number divided by loopback's just before.
func (r *results) ratio(relay string, m metric) (float64, bool) {
	var ratios []float64
	for _, s := range r.Samples[relay][m] {
		if s.Loopback > 0 {
			ratios = append(ratios, s.Value/s.Loopback)
		}
	}
	return median(ratios)
}

// loopback lists every sample of loopback itself, smallest first.
func (r *results) loopback(m metric) []float64 {
	var values []float64
	for _, relay := range r.Relays {
		for _, s := range r.Samples[relay][m] {
			if s.Loopback > 0 {
				values = append(values, s.Loopback)
			}
		}
	}
	slices.Sort(values)
	return values
}

// restless is the unrest from which on a run says little.
const restless = 1.5

// unrest returns the metric of loopback that moved most during the run, and by what factor.
func (r *results) unrest() (worst metric, factor float64) {
	for _, m := range []metric{forward1, reverse1, forward4, reverse4, rttTwoCPUs, connRate1} {
		if all := r.loopback(m); len(all) > 0 && all[len(all)-1]/all[0] > factor {
			worst, factor = m, all[len(all)-1]/all[0]
		}
	}
	return worst, factor
}

func median(values []float64) (float64, bool) {
	if len(values) == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle], true
	}
	return (sorted[middle-1] + sorted[middle]) / 2, true
}
