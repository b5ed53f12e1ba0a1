// Package shellword writes words as a POSIX shell reads them, for commands that people are told to paste. What is in them
// may be a stranger's: a file name, or a value in the rum.toml of a repository.
package shellword

import "strings"

// plain are the bytes that mean themselves to a shell, wherever they stand in a word.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+,="

// Quote writes a word so that a shell takes it for one, as it is.
func Quote(word string) string {
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Join writes a command.
func Join(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = Quote(w)
	}
	return strings.Join(quoted, " ")
}
