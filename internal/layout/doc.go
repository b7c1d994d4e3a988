// Package layout holds the tests of the repository's structure: who may import
// whom, and that every package says what it is for.
package layout
