// Package rulefile puts a rule into the rum.toml of a project, where people have written
// comments and an order that stay as they are. What rules mean is the package config's.
package rulefile
