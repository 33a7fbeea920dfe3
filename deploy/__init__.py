"""What the service is run with: chart, dashboards, alerts, and the program that writes what is generated."""
