"""What a service is run with: image, chart, dashboards, alerts, and the program that writes their generated files."""
