package main

import (
	"fmt"
	"slices"

	"github.com/prometheus/procfs"
)

// family returns the processes with the given ids and all their living descendants.
func family(pids []int) (procfs.Procs, map[int]procfs.ProcStat, error) {
	all, err := procfs.AllProcs()
	if err != nil {
		return nil, nil, fmt.Errorf("list processes: %w", err)
	}
	stats := make(map[int]procfs.ProcStat)
	for _, p := range all {
		if stat, err := p.Stat(); err == nil { // else it ended since
			stats[p.PID] = stat
		}
	}
	var members procfs.Procs
	for _, p := range all {
		for pid := p.PID; pid > 1; pid = stats[pid].PPID {
			if slices.Contains(pids, pid) {
				members = append(members, p)
				break
			}
		}
	}
	return members, stats, nil
}

// userHZ is the unit of processor time in /proc/PID/stat: proc_pid_stat(5), USER_HZ, 100 on every Linux there is.
const userHZ = 100

// cpuSeconds is the processor time the family has used. What an ended descendant used has gone to whoever waited for
// it, so that sum only grows.
func cpuSeconds(pids []int) (float64, error) {
	members, stats, err := family(pids)
	if err != nil {
		return 0, err
	}
	var ticks float64
	for _, p := range members {
		s := stats[p.PID]
		ticks += float64(s.UTime) + float64(s.STime) + float64(s.CUTime) + float64(s.CSTime)
	}
	return ticks / userHZ, nil
}

// memoryKiB is the family's proportional set size: pages shared by several processes count once among them.
func memoryKiB(pids []int) (float64, error) {
	members, _, err := family(pids)
	if err != nil {
		return 0, err
	}
	var bytes uint64
	for _, p := range members {
		if rollup, err := p.ProcSMapsRollup(); err == nil { // else it ended since
			bytes += rollup.Pss
		}
	}
	if bytes == 0 {
		return 0, fmt.Errorf("no memory use can be read from /proc/PID/smaps_rollup of %v", pids)
	}
	return float64(bytes) / 1024, nil
}
