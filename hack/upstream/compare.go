package main

import (
	"fmt"
	"maps"
	"slices"
)

// exceptions are the tests that pass with overlay and not with the driver, each with the reason.
var exceptions = map[string]string{
	"apply-diff-from-staging-directory": "the driver takes no partial pulls: it does not claim DriverWithDiffer",
	"check-layer-content-digest":        "writes to a mounted layer of an image, and wants check to find the layer changed: the content is in objects, which no mount writes to",
	"check-ro-layer-content-digest":     "likewise, in an additional store",
	"dedup":                             "applies a second tar to a layer, and wants dedup to find equal files: here they are one from the beginning",
	"idmaps-create-apply-layer":         "applies a tar to a layer that is mounted: no tar is laid over what somebody sees",
}

// notOurs are the tests that are skipped with the driver alone, each with the reason.
var notOurs = map[string]string{
	"recover stale tempdir with mount": "is about a mount that overlay makes of its own directory",
	"overlay-recreate":                 "is about symbolic links that overlay keeps beside its layers",
}

// compare says what the tests gave with overlay and with the driver, and what of that must not be. Of a part of the tests the
// exceptions need not be there.
func compare(overlay, ours map[string]result, exceptions map[string]string, part bool) (lines, wrong []string) {
	var passed, skipped int
	for _, name := range slices.Sorted(maps.Keys(overlay)) {
		o, ok := ours[name]
		reason, excepted := exceptions[name]
		switch {
		case !ok:
			wrong = append(wrong, name+": was not run with the driver")
		case o.skip != "" && overlay[name].skip != "":
			skipped++
			lines = append(lines, fmt.Sprintf("   skipped with both: %s: %s", name, o.skip))
		case !o.passed && !overlay[name].passed:
			lines = append(lines, "   fails with both: "+name)
		case !o.passed && excepted:
			lines = append(lines, fmt.Sprintf("   excepted: %s: %s", name, reason))
		case !o.passed:
			wrong = append(wrong, fmt.Sprintf("%s: passes with overlay and fails with the driver:\n%s", name, o.text))
		case excepted:
			wrong = append(wrong, name+": passes now, take it off the exceptions")
		case o.skip != "":
			if notOurs[name] == "" {
				wrong = append(wrong, fmt.Sprintf("%s: runs with overlay and is skipped with the driver: %s", name, o.skip))
			}
			skipped++
			lines = append(lines, fmt.Sprintf("   skipped: %s: %s", name, notOurs[name]))
		default:
			passed++
		}
	}
	if len(overlay) == 0 {
		wrong = append(wrong, "no test ran")
	}
	for _, name := range slices.Sorted(maps.Keys(exceptions)) {
		if _, ok := overlay[name]; !ok && !part {
			wrong = append(wrong, name+": there is no such test, take it off the exceptions")
		}
	}
	return append([]string{fmt.Sprintf("   %d tests: %d pass with the driver, %d are skipped", len(overlay), passed, skipped)}, lines...), wrong
}
