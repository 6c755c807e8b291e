// Package layers has too many methods, and too long a test.
package layers

import _ "github.com/containers/storage/pkg/archive"

// T has 17 methods.
type T[P any] struct{ p P }

// M1 is one.
func (t *T[P]) M1() {}

// M2 is one.
func (t *T[P]) M2() {}

// M3 is one.
func (t *T[P]) M3() {}

// M4 is one.
func (t *T[P]) M4() {}

// M5 is one.
func (t *T[P]) M5() {}

// M6 is one.
func (t *T[P]) M6() {}

// M7 is one.
func (t *T[P]) M7() {}

// M8 is one.
func (t *T[P]) M8() {}

// M9 is one.
func (t *T[P]) M9() {}

// M10 is one.
func (t *T[P]) M10() {}

// M11 is one.
func (t *T[P]) M11() {}

// M12 is one.
func (t *T[P]) M12() {}

// M13 is one.
func (t *T[P]) M13() {}

// M14 is one.
func (t *T[P]) M14() {}

// M15 is one.
func (t *T[P]) M15() {}

// M16 is one.
func (t *T[P]) M16() {}

// M17 is one.
func (t *T[P]) M17() {}
