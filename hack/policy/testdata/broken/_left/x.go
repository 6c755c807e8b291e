package broken
func this is no Go
