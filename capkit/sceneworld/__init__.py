"""SceneWorld: a seeded world of small pictures whose language is known exactly. See docs/sceneworld.md."""
