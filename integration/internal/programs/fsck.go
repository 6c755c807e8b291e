package programs

import "context"

func (s *Store) ownFsck(ctx context.Context) {}
