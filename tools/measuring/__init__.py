"""What `bench` measures, part by part, in torch and in other engines."""
