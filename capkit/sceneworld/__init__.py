"""SceneWorld: synthetic pictures of simple scenes with an exactly known language. See docs/sceneworld.md."""
