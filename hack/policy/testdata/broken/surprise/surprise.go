// Package surprise is in no room.
package surprise
