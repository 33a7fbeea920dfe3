"""Pages in a real browser: Chromium, driven by Playwright; what they show is kept in build/browser/."""
