"""What people type; a package, so that no other one of this name takes its place."""
