"""The report in a real browser: Debian's Chromium, driven by Playwright; what it shows is kept in build/browser/."""
