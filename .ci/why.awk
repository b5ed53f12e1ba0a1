# What each failed test of a "go test -v" said, its last 60 lines, subtests after the test they belong to: what a
# test logs when it ends stands between its subtests' errors and the line that says they failed.
/^=== (RUN|NAME|CONT) / { test = $3; next }
/^[[:space:]]*--- FAIL: / {
	printf "--- FAIL: %s\n", $3
	for (i = n[$3] > 60 ? n[$3] - 60 : 0; i < n[$3]; i++)
		print said[$3, i]
	next
}
/^[[:space:]]*--- / { next }
{ said[test, n[test]++] = $0 }
