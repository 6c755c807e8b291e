// Package powercut cuts the power of filesystems, and kills, while real programs work on a store that is on them. Whatever a program
// had reported as done must be there at the next boot, and nothing may need more than opening the store.
//
// A boot is a PID and mount namespace of its own, with a boot id and a run directory of its own, so that all that lives on after a
// real cut, and nothing else, is what the disk holds. It has no code of its own but tests.
package powercut
