"""What several tests need: servers, clients, processes, networks and made-up surroundings."""
