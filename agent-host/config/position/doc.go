// Package position tells where in a TOML document its keys and tables are: what an error of
// the configuration names, and where a rule can be put. It reads what a parser has found
// good, and does not look at values.
package position
